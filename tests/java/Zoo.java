package oracle;

import java.nio.file.*;
import org.deeplearning4j.nn.conf.*;
import org.deeplearning4j.nn.conf.inputs.InputType;
import org.deeplearning4j.nn.conf.layers.*;
import org.deeplearning4j.nn.multilayer.MultiLayerNetwork;
import org.deeplearning4j.nn.weights.WeightInit;
import org.nd4j.linalg.activations.Activation;
import org.nd4j.linalg.learning.config.*;
import org.nd4j.linalg.lossfunctions.LossFunctions.LossFunction;

/** The two networks of the model zoo, by DL4J's own builders: their JSON and their numbers of parameters. */
final class Zoo {
    public static void main(String[] arguments) throws Exception {
        write(arguments[0], "simple_cnn", cnn(7, 3, 48));
        write(arguments[0], "text_generation_lstm", lstm(47));
    }

    private static MultiLayerConfiguration cnn(int classes, int channels, int size) {
        NeuralNetConfiguration.ListBuilder list = new NeuralNetConfiguration.Builder().seed(1234)
            .activation(Activation.IDENTITY).weightInit(WeightInit.RELU).updater(new AdaDelta())
            .convolutionMode(ConvolutionMode.Same).list();
        int[][] blocks = {{7, 16}, {5, 32}, {3, 64}, {3, 128}};
        for (int[] block : blocks) {
            ConvolutionLayer.Builder first = new ConvolutionLayer.Builder(block[0], block[0]).nOut(block[1]);
            if (block == blocks[0]) first.name("image_array").nIn(channels);
            list.layer(first.build());
            list.layer(new BatchNormalization());
            list.layer(new ConvolutionLayer.Builder(block[0], block[0]).nOut(block[1]).build());
            list.layer(new BatchNormalization());
            list.layer(new ActivationLayer.Builder().activation(Activation.RELU).build());
            list.layer(new SubsamplingLayer.Builder(SubsamplingLayer.PoolingType.AVG, new int[] {2, 2}).build());
            list.layer(new DropoutLayer.Builder(0.5).build());
        }
        list.layer(new ConvolutionLayer.Builder(3, 3).nOut(256).build());
        list.layer(new BatchNormalization());
        list.layer(new ConvolutionLayer.Builder(3, 3).nOut(classes).build());
        list.layer(new GlobalPoolingLayer.Builder(PoolingType.AVG).build());
        list.layer(new ActivationLayer.Builder().activation(Activation.SOFTMAX).build());
        return list.setInputType(InputType.convolutional(size, size, channels)).build();
    }

    private static MultiLayerConfiguration lstm(int characters) {
        return new NeuralNetConfiguration.Builder().seed(12345).l2(0.001).weightInit(WeightInit.XAVIER)
            .updater(new RmsProp(0.01)).list()
            .layer(new GravesLSTM.Builder().nIn(characters).nOut(256).activation(Activation.TANH).build())
            .layer(new GravesLSTM.Builder().nIn(256).nOut(256).activation(Activation.TANH).build())
            .layer(new RnnOutputLayer.Builder(LossFunction.MCXENT).activation(Activation.SOFTMAX)
                .nIn(256).nOut(characters).build())
            .backpropType(BackpropType.TruncatedBPTT).tBPTTForwardLength(50).tBPTTBackwardLength(50).build();
    }

    private static void write(String folder, String name, MultiLayerConfiguration conf) throws Exception {
        MultiLayerNetwork net = new MultiLayerNetwork(conf);
        net.init();
        Files.writeString(Paths.get(folder, name + ".json"), conf.toJson());
        Files.writeString(Paths.get(folder, name + ".count"), String.valueOf(net.numParams()));
    }
}
